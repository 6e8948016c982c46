/// Jobs that come to something together or not at all. A job that is given none has one of its own.
///
/// On the registry's context only.
package final class JobTransaction: @unchecked Sendable {  // unchecked: see above
    /// Those that have started and are not over, the oldest first.
    var jobs: [Job] = []
    /// Why nothing will come of it.
    var hasFailed = false
    /// Work is being put into force, or undone: too late to ask for something else.
    var isConcluding = false

    package init() {}
}
