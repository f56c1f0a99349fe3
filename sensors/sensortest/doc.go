// Package sensortest owns the suites that every connector passes: Reader and
// Writer check what the contracts in package sensors promise, whatever the
// connector.
//
// It never knows a connector; each connector's tests bring a case that makes
// one and feeds it. What is special to a connector is tested beside it.
package sensortest
