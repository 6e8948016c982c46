// What lets an actor have a context as its executor: an event source that is an actor enters itself with `assumeIsolated` when the loop calls it.

extension IOContext {
    /// Asked by `assumeIsolated` outside any task: code on the context's thread has the context's actors to itself.
    package func isIsolatingCurrentContext() -> Bool? { isCurrent }

    /// The same question where only a trap can answer.
    package func checkIsolated() { precondition(isCurrent, "this runs on the thread of I/O context '\(name)'") }
}
