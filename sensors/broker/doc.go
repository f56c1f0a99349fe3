// Package broker owns the embedded MQTT broker (mochi-mqtt): for the demo, for
// tests, and for sites that have none.
//
// It never persists anything: sessions and retained messages live as long as
// the process, and it has no queue behind the messages in flight. Where the
// library breaks what the protocol promises of sessions, it is mended here (see
// sessions). A site that
// needs either runs a broker of its own; docs/MQTT.md says with which
// settings. The client side is in sensors/mqtt.
package broker
