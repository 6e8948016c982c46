package import IOCore
package import StorageSchema

/// What the user says about a job, whatever it does.
package struct JobSettings: Sendable {
    package var id: String
    package var type: JobType
    /// Works on nodes: told of by `query-block-jobs` and the BLOCK_JOB events. Jobs that make or amend an image are none.
    package var isBlockJob = true
    /// Puts its work into force by itself when it is done.
    package var finalizesAutomatically = true
    /// Is forgotten by itself when it is over.
    package var dismissesAutomatically = true
    /// The most it copies, in bytes per second; 0 is no limit.
    package var speed = 0
    /// Where it runs; nil for the graph's own context.
    package var context: IOContext?

    package init(id: String, type: JobType) {
        self.id = id
        self.type = type
    }
}
