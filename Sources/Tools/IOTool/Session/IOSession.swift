import BlockGraph
import IOCore
import ManagedObjects
import QAPIRuntime
import StorageSchema
import StrataBase
import Synchronization
import ToolSupport

/// What commands act on: at most one open image, and the requests that are under way on it. Used by one task at a time.
final class IOSession {
    /// In front of messages.
    let name: String
    let context: IOContext
    private let images: ImageSession
    /// The image, and how it was opened.
    private(set) var open: (disk: Disk, request: OpenRequest)?
    var isMisaligned = false
    /// Set by `quit`.
    var isOver = false
    /// The signal that the person at the prompt has ended the session with, and that is to end the process.
    var endingSignal: Int32?
    /// Requests that nobody waits for yet.
    let outstanding = InFlightCounter()

    init(name: String, context: IOContext, objects: ObjectRegistry) {
        self.name = name
        self.context = context
        images = ImageSession(context: context, objects: objects)
    }

    /// - Throws: `.complained` when no image is open.
    func disk() throws(CommandFailure) -> Disk {
        guard let open else { throw .complained("no file open, try 'help open'") }
        return open.disk
    }

    /// Opens an image.
    /// - Throws: `.reported`; an image that is open already stays open.
    func open(_ text: String?, _ request: OpenRequest) async throws(CommandFailure) {
        if open != nil { throw .reported("file open already, try 'help close'") }
        do throws(BlockError) {
            let image = try await request.open(text, in: images)
            image.warnOfGuess()
            // Options may have had another wish.
            var request = request
            request.isReadOnly = image.node.isReadOnly
            open = (Disk(image, isWriteThrough: !request.cache.writeback), request)
        } catch {
            let subject = text.map { request.isOptions ? "" : " device \($0)" } ?? ""
            throw .reported("can't open\(subject): \(error)")
        }
    }

    /// Closes the image once the requests on it are over. No image: nothing to do.
    func close() async throws(CommandFailure) {
        await outstanding.waitUntilIdle()
        guard let image = open?.disk.image else { return }
        open = nil
        do throws(BlockError) { try await images.close(image) } catch { throw .reported(error.description) }
    }

    /// Changes the options of the open image.
    /// - Parameter changes: how they are to differ; options given by name win.
    func reopen(_ changes: ReopenChanges) async throws(CommandFailure) {
        guard let (disk, old) = open else { throw .complained("no file open, try 'help open'") }
        await outstanding.waitUntilIdle()
        let image = disk.image
        var request = old
        if let isReadOnly = changes.isReadOnly { request.isReadOnly = isReadOnly }
        if let cache = changes.cache { request.cache = cache }
        do throws(BlockError) {
            let definition = try changes.definition(of: image.node, isReadOnly: request.isReadOnly, cache: request.cache)
            // A writer that gives up writing does so before its node does, and one that begins does so after it.
            if request.isReadOnly, disk.isWritable { try await images.graph.setGrant(Self.grant(isReadOnly: true), of: image.backend) }
            do throws(BlockError) {
                try await images.graph.reopen([definition])
            } catch {
                if !image.node.isReadOnly, !disk.isWritable { try? await images.graph.setGrant(Self.grant(isReadOnly: false), of: image.backend) }
                throw error
            }
            if !image.node.isReadOnly, !disk.isWritable { try await images.graph.setGrant(Self.grant(isReadOnly: false), of: image.backend) }
        } catch {
            throw .reported(error.description)
        }
        request.isReadOnly = image.node.isReadOnly
        open = (Disk(image, isWriteThrough: !request.cache.writeback), request)
    }

    private static func grant(isReadOnly: Bool) -> PermissionGrant {
        PermissionGrant(used: isReadOnly ? .consistentRead : [.consistentRead, .write, .resize], shared: .all.subtracting(.resize))
    }
}
