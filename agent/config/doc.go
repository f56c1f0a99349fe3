// Package config owns the agent's configuration: one tree of defaults, file and
// flags, checked as a whole, and explained.
package config
