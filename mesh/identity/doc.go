// Package identity owns who is who: the mesh's root, each site's intermediate,
// the certificates of agents, the gossip key, join tokens, and the files that
// they are kept in.
package identity
