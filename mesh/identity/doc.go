// Package identity owns who is who: the mesh's root, each site's intermediate,
// the certificates of agents, the gossip key, join tokens, and the files that
// they are kept in.
//
// It opens no connection and asks nobody: mesh/link takes its TLS
// configurations, mesh/join carries its requests and certificates. Secrets come
// from crypto/rand and from nowhere else. docs/SECURITY.md says what is
// protected by what.
package identity
