// Package mqtt owns the connector to an MQTT 3.1.1 broker: Reader, the feed
// session of a source, and Writer, the sink.
//
// Paho keeps the session: CONNECT, SUBSCRIBE, keep-alive, the parsing of what
// comes in, and the second half of QoS 2. What goes out once for each message
// (PUBLISH, PUBACK, PUBREC) is framed here, straight into the connection's
// buffer, so that nothing is allocated and one write carries many. Connecting
// again is done here too, since only the owner knows when it may.
//
// It never decodes payloads (sensors/decode does), stores nothing but how far a
// commit has come and pending rows, and never blocks paho's handler. Read
// session.go for the life of a connection, inbox.go for what full means,
// ledger.go for acknowledgements and redeliveries, writer.go for the sink,
// writer_courier.go for the one whose rows wait for their checkpoint;
// docs/MQTT.md for what a user must know of brokers.
//
// It is large because source and sinks share session, connection and frames.
package mqtt
