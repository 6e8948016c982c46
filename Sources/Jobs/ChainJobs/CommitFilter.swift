import BlockFilters
import BlockGraph
import StorageSchema
import StrataBase

/// Stands between an image that is being committed and its users. It passes requests on and asks for nothing, so that the images below may be
/// written to although what each of them shows for itself makes no sense meanwhile; what they show together stays the same.
final class CommitFilter: FilterDriver, ChainFreezing {
    static let formatName = "commit_top"
    let file: BlockChild
    /// The base: what lies between is going into it.
    let frozenBottom: String?

    init(_ file: BlockChild, base: String) {
        self.file = file
        frozenBottom = base
    }

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver { throw .onlyForJobs(formatName) }

    func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant { .none }
}

extension BlockError {
    /// The refusal of a node that only a job makes.
    static func onlyForJobs(_ driver: String) -> BlockError { BlockError(.unsupported, "A node of driver '\(driver)' is made by a job only") }
}
