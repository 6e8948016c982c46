/// An actor that lives on an I/O context: its methods run on the context's thread, and the context's event loop enters it by `assumeIsolated`
/// without a switch.
package protocol ContextActor: Actor {
    nonisolated var context: IOContext { get }
}

extension ContextActor {
    // SAFETY: an actor keeps its context alive, and a job of the actor keeps the actor alive.
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe context.asUnownedSerialExecutor() }
}
