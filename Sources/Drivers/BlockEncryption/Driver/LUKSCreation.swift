package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase

extension LUKSDriver {
    /// Makes a LUKS disk in an empty file.
    /// - Parameters:
    ///   - backend: writable and resizable; its contents are lost. `options.file` is not looked at.
    ///   - password: opens the first key slot.
    package static func create(_ options: BlockdevCreateOptionsLUKS, password: [UInt8], in backend: BlockBackend) async throws(BlockError) {
        let header = options.headerOptions
        try checkCreation(options)
        let payload = try header.headerSize()
        // Data first: a file with a header is as long as its disk.
        try await backend.root.resize(to: payload + options.size, exact: false, preallocation: options.preallocation ?? .off)
        _ = try await LUKSLayout.format(NodeKeyArea(backend.root), header, password: password)
    }

    /// Whether a disk can be made so, before anything is done to the file.
    package static func checkCreation(_ options: BlockdevCreateOptionsLUKS) throws(BlockError) {
        if options.header != nil { throw BlockError(.unsupported, "Detached LUKS headers ('header') are not supported") }
        if options.preallocation == .metadata { throw BlockError(.invalidArgument, "Unsupported preallocation mode: metadata") }
        guard options.size >= 0, options.size.isMultiple(of: DiskCipher.sectorSize) else {
            throw BlockError(.invalidArgument, "The image size must be a multiple of \(DiskCipher.sectorSize) bytes")
        }
        guard !options.size.addingReportingOverflow(try options.headerOptions.headerSize()).overflow else {
            throw BlockError(.tooLarge, "The requested file size is too large")
        }
        try options.headerOptions.check()
    }

    /// How much room a LUKS disk of `byteCount` bytes takes.
    package static func measure(_ options: QCryptoBlockCreateOptionsLUKS, byteCount: Int) throws(BlockError) -> ImageMeasure {
        let total = byteCount.addingReportingOverflow(try options.headerSize())
        if total.overflow { throw BlockError(.tooLarge, "The requested file size is too large") }
        return ImageMeasure(required: total.partialValue, fullyAllocated: total.partialValue)
    }
}

extension BlockdevCreateOptionsLUKS {
    /// What the header is made from.
    package var headerOptions: QCryptoBlockCreateOptionsLUKS {
        QCryptoBlockCreateOptionsLUKS(
            keySecret: keySecret, cipherAlg: cipherAlg, cipherMode: cipherMode, ivgenAlg: ivgenAlg, ivgenHashAlg: ivgenHashAlg, hashAlg: hashAlg,
            iterTime: iterTime)
    }
}
