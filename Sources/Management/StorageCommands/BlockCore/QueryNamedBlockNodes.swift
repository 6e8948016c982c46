package import StorageSchema

extension StorageService {
    /// Lists the nodes, the newest first. `flat` leaves out what backing files say, of which a long chain would say much.
    package func queryNamedBlockNodes(_ arguments: QueryNamedBlockNodesArguments) async throws -> [BlockDeviceInfo] {
        try await graph.describeNodes(followsBacking: arguments.flat != true)
    }
}
