package import BlockGraph
package import IOCore
import ManagedObjects
package import StorageSchema
package import StrataBase
import Synchronization

/// A disk that is encrypted as a whole (`driver=luks`): a LUKS header with key slots, then the disk, sector by sector.
///
/// The keys are all there is between the guest and its data, so nothing is known about what the file has allocated: all of it is data.
package final class LUKSDriver: BlockDriver, Flushing, Resizing, ImageDescribing, Reopening, KeySlotAmending {
    package static let formatName = "luks"
    package static let kind = DriverKind.format

    private let file: BlockChild
    /// As found when the image was opened, or as the last change of a key slot has left it. Guarded by `changes` while it changes.
    private let layout: Mutex<LUKSLayout>
    /// Nil where only metadata is wanted.
    private let unlocked: (cipher: DiskCipher, password: [UInt8])?
    private let payloadOffset: Int
    /// One change of key slots at a time; spans I/O on the header, never guest data.
    private let changes = AsyncMutex()

    private init(file: BlockChild, layout: LUKSLayout, unlocked: (cipher: DiskCipher, password: [UInt8])?) {
        self.file = file
        self.layout = Mutex(layout)
        self.unlocked = unlocked
        payloadOffset = layout.payloadOffset
    }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .luks(let options) = options.branch else { throw BlockError(.invalidArgument, "the options are not those of a luks node") }
        if options.header != nil { throw BlockError(.unsupported, "Detached LUKS headers ('header') are not supported") }
        let file = try await opener.openChild(options.file, as: "file", role: [.data, .metadata, .primary])
        let area = NodeKeyArea(file)
        let layout = try await LUKSLayout(readingFrom: area)
        guard layout.payloadOffset <= file.length else {
            throw BlockError(.corruptImage, "The LUKS payload begins at \(layout.payloadOffset), beyond the end of the file")
        }
        guard opener.opensChain else { return LUKSDriver(file: file, layout: layout, unlocked: nil) }
        guard let secret = options.keySecret else { throw BlockError(.invalidArgument, "Parameter 'key-secret' is required for cipher") }
        let password = Array(try opener.objects.password(secret).utf8)
        let key = try await layout.masterKey(password: password, in: area)
        return LUKSDriver(file: file, layout: layout, unlocked: (try layout.cipher.cipher(key: key), password))
    }

    package var length: Int { max(0, file.length - payloadOffset) / DiskCipher.sectorSize * DiskCipher.sectorSize }
    package var children: [BlockChild] { [file] }
    package var limits: BlockLimits { BlockLimits(requestAlignment: DiskCipher.sectorSize) }
    package var supportedWriteFlags: RequestFlags { .forceUnitAccess }

    private func host(_ offset: GuestOffset) -> HostOffset { HostOffset(payloadOffset + offset.rawValue) }

    private func cipher() throws(BlockError) -> DiskCipher {
        guard let unlocked else { throw BlockError(.accessDenied, "The image was opened without its key") }
        return unlocked.cipher
    }

    // MARK: Requests

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        guard let unlocked, !file.observesFaultPoints else { return false }
        return unlocked.cipher.tryRead(target, from: file, at: host(offset), position: offset.rawValue)
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        file.reached(.readAio)
        try await cipher().read(target, from: file, at: host(offset), position: offset.rawValue)
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard let unlocked, flags.isEmpty, !file.observesFaultPoints else { return false }
        return unlocked.cipher.tryWrite(source, to: file, at: host(offset), position: offset.rawValue)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        file.reached(.writeAio)
        try await cipher().write(source, to: file, at: host(offset), position: offset.rawValue, flags: flags)
    }

    package func flush() async throws(BlockError) {
        file.reached(.flushToDisk)
        try await file.flush()
    }

    package func startWriteback() { file.startWriteback() }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        guard byteCount.isMultiple(of: DiskCipher.sectorSize) else { throw BlockError(.invalidArgument, "The new size must be a multiple of \(DiskCipher.sectorSize)") }
        let (total, overflow) = byteCount.addingReportingOverflow(payloadOffset)
        if overflow { throw BlockError(.tooLarge, "The requested file size is too large") }
        try await file.resize(to: total, exact: exact, preallocation: preallocation)
    }

    package func describeImage() async throws(BlockError) -> ImageDescription {
        var description = ImageDescription()
        description.isEncrypted = true
        description.specific = ImageInfoSpecific(.luks(ImageInfoSpecificLUKSWrapper(data: layout.withLock { $0.description })))
        return description
    }

    // MARK: Keys

    package func changeKeySlots(_ change: KeySlotChange) async throws(BlockError) {
        guard let unlocked else { throw BlockError(.accessDenied, "The image was opened without its key") }
        await changes.lock()
        defer { changes.unlock() }
        var new = layout.withLock { $0 }
        // Several slots may be erased; what is done stays done when a later one fails.
        defer { layout.withLock { $0 = new } }
        try await new.change(change, openedWith: unlocked.password, in: NodeKeyArea(file))
    }

    // MARK: Reopening

    /// None: another key does not open the same disk.
    package static let changeableOptions: Set<String> = []

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {}
}

/// Has key slots that can be changed while it is in use.
package protocol KeySlotAmending: BlockDriver {
    /// One slot is changed or not changed, also over a crash.
    func changeKeySlots(_ change: KeySlotChange) async throws(BlockError)
}
