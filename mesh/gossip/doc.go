// Package gossip drives memberlist: who is there, where, and who seems dead.
package gossip
