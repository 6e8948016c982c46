package import StorageSchema

extension StorageService {
    /// Devices of virtual machines: a storage daemon has none.
    package func queryBlock() async throws -> [BlockInfo] { [] }
}
