// Package simulate owns the simulated fleet: thousands of cold-chain sensors
// from one seed, with the faults of real ones, and the oracle that knows what
// a job must make of what they sent.
//
// It sends nothing and looks at no clock: a Fleet is a list of messages in the
// order of their virtual sending time, and its caller decides how fast that
// time goes. The next thing to read is sensors/mqtt, which sends them.
//
// # What a device does
//
// It reads its temperature about every Every, in event time by its own clock,
// and after each Interval sends a marker ("flush"): every reading it sends
// later, but for the faulty ones below, has a time after the marker's. So a
// marker at 10:00:10.000 closes the window [10:00:00, 10:00:10). Devices send
// in order; across devices no order is promised. The faults:
//
//   - late: the device holds a reading back for LateBy and then sends it.
//   - duplicate: a message is sent twice in a row, as QoS 1 may do.
//   - silent: the device stops for a while, or for good. It comes back with a
//     reading of the moment; what it did not measure is not sent later.
//   - ahead, behind: its clock is wrong by a fixed time, markers included.
//
// # Why the expected windows are exact
//
// The job reads per device: the source's watermark is the least of the live
// devices', a device starts at the source's watermark when it joins (or joins
// again after idle_after) and from then on is at the larger of that and its
// own last marker; without a marker it holds the source for idle_after only. Let S be the Slack: any two messages sent further apart
// than S, of different devices, are received in that order, and none arrives
// more than S after it was sent.
//
//  1. A reading is surely on time if its window ends after both its device's
//     last marker and joining time + S. For while the device lives, the
//     watermark is at most what the device is at; and the watermark that it
//     joined at comes from markers that were sent before joining time + S and
//     claim no more than that. (A device that may have lost its hold for want of
//     a marker counts as joining with each message.) No assumption about other devices' speed is
//     left when the device has been there for S: its own silence holds the
//     window open, whatever the network does to the others.
//  2. A reading is surely late if its window ended Lag + S before it was sent,
//     Lag being two intervals, the worst clock behind, idle_after, and how late
//     a device may be with a marker (Delay, and Every for a re-send before it). For then every live device has sent a marker past
//     that end, and a silent one no longer counts. (Two intervals, because a
//     device that has just joined holds the watermark until its first marker.
//     Markers of all devices fall on the same instants, as clocks are wrong by
//     whole intervals; so joins do not add up.) Some device must have lived all that
//     time: while none does the watermark stands still, and nothing is late.
//  3. A reading or marker is surely refused if it is ahead of its sending time
//     by more than max_ahead + S. It then counts as no sign of life.
//
// Whatever is none of these makes its window unsure, and the oracle says so
// instead of judging it. A fleet whose Settle is above S and whose LateBy is
// at least SureLate, and of which some device always lives, has no unsure windows
// for a threshold of Limit: until it has settled, a device's readings stay cold.
//
// Duplicates of readings on time are counted twice, unless the job has
// dedupe. A late reading is compared after the filter, as in a job that
// filters first: a cold one is filtered, not late.
package simulate
