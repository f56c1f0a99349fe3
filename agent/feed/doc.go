// Package feed makes MQTT replayable: a Feed owns one session with a broker and
// one ingest log, and a pump between them. A message is appended, made durable,
// and only then acknowledged; jobs read the log, each at its own position.
//
// It never decodes a payload, never decides what the log may forget (readers,
// pins and the retention in its Config do), and keeps no secret on disk. Read
// feed.go for the life of a feed, pump.go for the order of acts that nothing is
// lost by, config.go for what feed.json holds; docs/MQTT.md for what is exact.
package feed
