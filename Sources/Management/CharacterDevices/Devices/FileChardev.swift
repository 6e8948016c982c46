import IOCore
package import ManagedObjects
import StrataBase

/// Output into a file, and input from another one.
package final class FileChardev: CharacterDevice {
    package static let typeName = "chardev-file"
    package static let parentTypeName = "chardev-fd"
    package static let properties: [ObjectProperty<FileChardev>] = []
    package let label: String
    package let slot: FrontendSlot
    package let filename = "file"
    private let stream: DescriptorStream

    init(_ label: String, output: String, input: String?, appends: Bool, log: LogOptions) throws(BlockError) {
        self.label = label
        // The input first: a name that is wrong must not cost what the output file holds.
        let source: ConnectedSocket?
        if let input { source = try StreamFiles.open(input, for: .reading) } else { source = nil }
        slot = try FrontendSlot(log)
        stream = DescriptorStream(input: source, output: try StreamFiles.open(output, for: .writing(appends: appends)), ending: .leaves)
    }

    package func start() { slot.open(stream) }
    package func shutDown() {}
}

/// Two named pipes, NAME.in and NAME.out, or one for both directions.
package final class PipeChardev: CharacterDevice {
    package static let typeName = "chardev-pipe"
    package static let parentTypeName = "chardev-fd"
    package static let properties: [ObjectProperty<PipeChardev>] = []
    package let label: String
    package let slot: FrontendSlot
    package let filename = "pipe"
    private let stream: DescriptorStream

    init(_ label: String, path: String, log: LogOptions) throws(BlockError) {
        self.label = label
        slot = try FrontendSlot(log)
        if FileStamp(of: path + ".in") != nil, FileStamp(of: path + ".out") != nil {
            stream = DescriptorStream(
                input: try StreamFiles.open(path + ".in", for: .both), output: try StreamFiles.open(path + ".out", for: .both), ending: .leaves)
        } else {
            stream = DescriptorStream(try StreamFiles.open(path, for: .both), ending: .leaves)
        }
    }

    package func start() { slot.open(stream) }
    package func shutDown() {}
}

/// Standard input and output. There is one at a time.
package final class StdioChardev: CharacterDevice {
    package static let typeName = "chardev-stdio"
    package static let parentTypeName = "chardev-fd"
    package static let properties: [ObjectProperty<StdioChardev>] = []
    package let label: String
    package let slot: FrontendSlot
    package let filename = "stdio"

    init(_ label: String, log: LogOptions) throws(BlockError) {
        self.label = label
        slot = try FrontendSlot(log)
    }

    package func start() {
        slot.open(DescriptorStream(input: ConnectedSocket(adopting: 0), output: ConnectedSocket(adopting: 1), ending: .givesBack))
    }
    package func shutDown() {}
}
