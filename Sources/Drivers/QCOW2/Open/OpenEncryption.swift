import BlockEncryption
import BlockGraph
import IOCore
import ManagedObjects
import StorageSchema
import StrataBase

extension QCOW2Driver {
    /// The key slots of an image that has some. They are read also where only metadata is wanted.
    static func readKeySlots(of file: BlockChild, _ header: ValidatedHeader) async throws(BlockError) -> LUKSLayout? {
        guard let place = header.extensions.encryptionHeader else { return nil }
        guard place.length >= UInt64(LUKSHeader.encodedSize) else { throw BlockError(.corruptImage, "Request for data outside of extension header") }
        return try await LUKSLayout(readingFrom: NodeKeyArea(file, at: HostOffset(Int(place.offset))), areaSize: Int(clamping: place.length))
    }

    /// The key of an encrypted image.
    /// - Throws: when the options do not fit the image, or the secret does not open it.
    static func unlock(
        _ options: BlockdevOptionsQcow2, _ header: ValidatedHeader, _ keySlots: LUKSLayout?, _ file: BlockChild, _ objects: ObjectRegistry
    ) async throws(BlockError) -> ImageEncryption? {
        let format: BlockdevQcow2EncryptionFormat
        switch header.header.encryptionMethod {
        case 0:
            if let wanted = options.encrypt { throw BlockError(.invalidArgument, "No encryption in image header, but options specified format '\(wanted.format.rawValue)'") }
            return nil
        case 1: format = .aes
        default: format = .luks
        }
        if let wanted = options.encrypt, wanted.format != format {
            throw BlockError(.invalidArgument, "Header reported '\(format.rawValue)' encryption format but options specify '\(wanted.format.rawValue)'")
        }
        guard let secret = options.encrypt?.keySecret else { throw BlockError(.invalidArgument, "Parameter 'encrypt.key-secret' is required for cipher") }
        let password = Array(try objects.password(secret).utf8)
        guard let keySlots, let place = header.extensions.encryptionHeader else { return try .old(password: password) }
        let key = try await keySlots.masterKey(password: password, in: NodeKeyArea(file, at: HostOffset(Int(place.offset))))
        return ImageEncryption(cipher: try keySlots.cipher.cipher(key: key), usesGuestOffsets: false, password: password)
    }
}

extension BlockdevQcow2Encryption {
    fileprivate var keySecret: String? {
        switch branch {
        case .aes(let options): options.keySecret
        case .luks(let options): options.keySecret
        }
    }
}

extension ImageEncryption {
    /// The old kind: the password is the key, cut or filled up to 16 bytes. Nothing tells whether it is the right one.
    static func old(password: [UInt8]) throws(BlockError) -> ImageEncryption {
        let key = Array(password.prefix(16)) + [UInt8](repeating: 0, count: max(0, 16 - password.count))
        return ImageEncryption(cipher: try DiskCipher(.cbc, .plain64, key: key), usesGuestOffsets: true, password: password)
    }
}
