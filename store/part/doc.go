// Package part owns a node's parts and manifests on disk: it writes them so
// that a crash at any moment loses nothing that was promised and leaves nothing
// half, reads them with their digests verified, and removes what no manifest
// names any more.
//
// Disk is the real file system; everything else here is written against
// store.FS, so that tests can cut the power at every write. What a part holds
// is dataflow/avro's, what a manifest means is store/manifest's.
//
// # What is promised
//
//   - When Put or PutAll returned, the parts survive a crash. A part's bytes are
//     durable before it gets its name, so a name never stands for less.
//   - When Manifests.Put returned, the manifest survives a crash, and all parts
//     that it names are there. Until then it cannot be seen.
//   - A part is pinned from Put until Unpin, and a collection removes none that
//     is pinned, was pinned at any time since the collection began, or is named
//     by a manifest that was there at any time since.
//
// docs/PART_FORMAT.md and docs/MANIFEST_FORMAT.md have the bytes.
package part
