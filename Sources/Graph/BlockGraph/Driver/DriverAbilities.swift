// How a node learns what its driver can do. Casting to each of these protocols would search the conformances of the whole program for each of them,
// which took a quarter of a short command's time; here the compiler answers. A conformance that is declared in another module than the
// driver's own would not be seen: a test compares with the casts.

extension BlockDriver {
    package var asFlushing: (any Flushing)? { nil }
    package var asZeroWriting: (any ZeroWriting)? { nil }
    package var asDiscarding: (any Discarding)? { nil }
    package var asResizing: (any Resizing)? { nil }
    package var asStatusReporting: (any StatusReporting)? { nil }
    package var asHostFileBacked: (any HostFileBacked)? { nil }
    package var asFaultObserving: (any FaultObserving)? { nil }
    package var asDraining: (any Draining)? { nil }
    package var asCopyRanging: (any CopyRanging)? { nil }
    package var asCompressedWriting: (any CompressedWriting)? { nil }
    package var asChecking: (any Checking)? { nil }
    package var asSnapshotting: (any Snapshotting)? { nil }
    package var asImageDescribing: (any ImageDescribing)? { nil }
    package var asBitmapPersisting: (any BitmapPersisting)? { nil }
    package var asChildChanging: (any ChildChanging)? { nil }
}

extension Flushing { package var asFlushing: (any Flushing)? { self } }
extension ZeroWriting { package var asZeroWriting: (any ZeroWriting)? { self } }
extension Discarding { package var asDiscarding: (any Discarding)? { self } }
extension Resizing { package var asResizing: (any Resizing)? { self } }
extension StatusReporting { package var asStatusReporting: (any StatusReporting)? { self } }
extension HostFileBacked { package var asHostFileBacked: (any HostFileBacked)? { self } }
extension FaultObserving { package var asFaultObserving: (any FaultObserving)? { self } }
extension Draining { package var asDraining: (any Draining)? { self } }
extension CopyRanging { package var asCopyRanging: (any CopyRanging)? { self } }
extension CompressedWriting { package var asCompressedWriting: (any CompressedWriting)? { self } }
extension Checking { package var asChecking: (any Checking)? { self } }
extension Snapshotting { package var asSnapshotting: (any Snapshotting)? { self } }
extension ImageDescribing { package var asImageDescribing: (any ImageDescribing)? { self } }
extension BitmapPersisting { package var asBitmapPersisting: (any BitmapPersisting)? { self } }
extension ChildChanging { package var asChildChanging: (any ChildChanging)? { self } }
