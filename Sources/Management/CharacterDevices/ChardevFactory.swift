package import IOCore
package import ManagedObjects
import StorageSchema
import StrataBase

/// Makes devices from their descriptions.
package struct ChardevFactory: Sendable {
    package enum Origin: Sendable {
        case commandLine
        /// Somebody who does not share our descriptors.
        case monitor
    }

    let context: IOContext
    let origin: Origin
    /// Where TLS credentials and authorizations are.
    let objects: ObjectRegistry
    /// Returns when nobody wants to wait for a client any more.
    let untilCancelled: @Sendable () async -> Void

    package init(context: IOContext, origin: Origin, objects: ObjectRegistry, untilCancelled: @escaping @Sendable () async -> Void) {
        self.context = context
        self.origin = origin
        self.objects = objects
        self.untilCancelled = untilCancelled
    }

    /// The kinds that `make` makes.
    package static var kinds: [String] { ChardevBackendKind.allCases.map(\.rawValue) }

    /// - Throws: what is wrong or not supported; then nothing remains.
    func make(_ label: String, _ backend: ChardevBackend) async throws(BlockError) -> any CharacterDevice {
        switch backend.branch {
        case .null(let wrapper): return try NullChardev(label, log: LogOptions(file: wrapper.data.logfile, appends: wrapper.data.logappend))
        case .ringbuf(let wrapper):
            let options = wrapper.data
            return try RingBufferChardev(label, size: options.size, log: LogOptions(file: options.logfile, appends: options.logappend))
        case .file(let wrapper):
            let options = wrapper.data
            return try FileChardev(
                label, output: options.out, input: options.`in`, appends: options.append ?? false,
                log: LogOptions(file: options.logfile, appends: options.logappend))
        case .pipe(let wrapper):
            let options = wrapper.data
            return try PipeChardev(label, path: options.device, log: LogOptions(file: options.logfile, appends: options.logappend))
        case .pty(let wrapper):
            let options = wrapper.data
            return try PtyChardev(label, link: options.path, context: context, log: LogOptions(file: options.logfile, appends: options.logappend))
        case .stdio(let wrapper):
            let options = wrapper.data
            if options.signal == false { throw BlockError(.unsupported, "Parameter 'signal' is not supported: signals end the daemon") }
            return try StdioChardev(label, log: LogOptions(file: options.logfile, appends: options.logappend))
        case .socket(let wrapper):
            let options = wrapper.data
            return try await SocketChardev(
                label, SocketOptions(options, acceptsDescriptors: origin == .commandLine, objects: objects, user: "chardev '\(label)'"), context: context,
                log: LogOptions(file: options.logfile, appends: options.logappend), untilCancelled: untilCancelled)
        }
    }
}
