import StorageSchema
import StrataBase

// The options of `-o` as QAPI has them.

extension BlockdevCreateOptionsQcow2 {
    init(_ request: CreateRequest, byteCount: Int) throws(BlockError) {
        if request.text("backing_file") == nil, request.text("backing_fmt") != nil {
            throw BlockError(.invalidArgument, "Backing format cannot be used without backing file")
        }
        // The old names of the versions, which images of that time also carry.
        let version =
            switch request.text("compat") {
            case "0.10": "v2"
            case "1.1": "v3"
            case let other: other
            }
        self.init(
            file: .reference(""), dataFile: request.text("data_file") == nil ? nil : .reference(""), dataFileRaw: request.flag("data_file_raw"), extendedL2: request.flag("extended_l2"), size: byteCount,
            version: try request.choice(version, "version"), backingFile: request.text("backing_file"),
            backingFmt: try request.choice(request.text("backing_fmt"), "backing-fmt"), encrypt: try request.encryption(), clusterSize: request.number("cluster_size"),
            preallocation: try request.choice(request.text("preallocation"), "preallocation"), lazyRefcounts: request.flag("lazy_refcounts"),
            refcountBits: request.number("refcount_bits"), compressionType: try request.choice(request.text("compression_type"), "compression-type"))
    }
}

extension BlockdevCreateOptionsLUKS {
    init(_ request: CreateRequest, byteCount: Int) throws(BlockError) {
        // QEMU knows the option and refuses it in the same words.
        if request.flag("detached-header") != nil { throw BlockError(.invalidArgument, "Parameter 'detached-header' is unexpected") }
        let header = try request.keySlotOptions(prefix: "")
        if header.keySecret == nil { throw BlockError(.invalidArgument, "Parameter 'key-secret' is required for cipher") }
        self.init(
            keySecret: header.keySecret, cipherAlg: header.cipherAlg, cipherMode: header.cipherMode, ivgenAlg: header.ivgenAlg,
            ivgenHashAlg: header.ivgenHashAlg, hashAlg: header.hashAlg, iterTime: header.iterTime, size: byteCount,
            preallocation: try request.choice(request.text("preallocation"), "preallocation"))
    }
}

extension CreateRequest {
    /// A value that must be one of an enumeration's; nil for nil.
    fileprivate func choice<Choice: RawRepresentable<String>>(_ text: String?, _ name: String) throws(BlockError) -> Choice? {
        guard let text else { return nil }
        guard let value = Choice(rawValue: text) else {
            throw BlockError(.invalidArgument, "Parameter '\(name)' does not accept value '\(text)'")
        }
        return value
    }

    /// - Parameter prefix: what stands before the names of the options.
    fileprivate func keySlotOptions(prefix: String) throws(BlockError) -> QCryptoBlockCreateOptionsLUKS {
        QCryptoBlockCreateOptionsLUKS(
            keySecret: text("\(prefix)key-secret"), cipherAlg: try choice(text("\(prefix)cipher-alg"), "cipher-alg"),
            cipherMode: try choice(text("\(prefix)cipher-mode"), "cipher-mode"), ivgenAlg: try choice(text("\(prefix)ivgen-alg"), "ivgen-alg"),
            ivgenHashAlg: try choice(text("\(prefix)ivgen-hash-alg"), "ivgen-hash-alg"), hashAlg: try choice(text("\(prefix)hash-alg"), "hash-alg"),
            iterTime: number("\(prefix)iter-time"))
    }

    /// The encryption of a new qcow2 image.
    fileprivate func encryption() throws(BlockError) -> QCryptoBlockCreateOptions? {
        let prefix = "encrypt."
        let given = format.options.map(\.name).filter { $0.hasPrefix(prefix) && isSet($0) }
        var wanted = text("encrypt.format")
        if let isOld = flag("encryption") {
            if wanted != nil { throw BlockError(.invalidArgument, "'encrypt.format' and its alias 'encryption' can't be used at the same time") }
            if isOld { wanted = "aes" }
        }
        guard let wanted else {
            if !given.isEmpty { throw BlockError(.invalidArgument, "Parameter 'encrypt.format' is missing") }
            return nil
        }
        switch wanted {
        case "aes":
            if let other = given.first(where: { $0 != "encrypt.format" && $0 != "encrypt.key-secret" }) {
                throw BlockError(.invalidArgument, "Parameter '\(other)' is unexpected")
            }
            return QCryptoBlockCreateOptions(.qcow(QCryptoBlockOptionsQCow(keySecret: text("encrypt.key-secret"))))
        case "luks": return QCryptoBlockCreateOptions(.luks(try keySlotOptions(prefix: prefix)))
        default: throw BlockError(.invalidArgument, "Parameter 'format' does not accept value '\(wanted)'")
        }
    }
}

extension QCryptoBlockCreateOptions {
    /// The secret that opens the image.
    var keySecret: String? {
        switch branch {
        case .qcow(let options): options.keySecret
        case .luks(let options): options.keySecret
        }
    }
}
