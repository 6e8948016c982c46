import IOCore
import Synchronization
import Testing

@Suite("references that change only in quiet", .serialized)
struct QuiescentReferenceTests {
    private final class Thing: Sendable {
        static let alive = Mutex(0)
        let number: Int
        init(_ number: Int) {
            self.number = number
            Self.alive.withLock { $0 += 1 }
        }
        deinit { Self.alive.withLock { $0 -= 1 } }
    }

    private final class Holder: Sendable {
        let reference: QuiescentReference<Thing>
        init(_ thing: Thing) { reference = QuiescentReference(thing) }
    }

    @Test("an object lives as long as the reference leads to it, or as whoever asked for it keeps it")
    func lifetimes() {
        var holder: Holder? = Holder(Thing(1))
        #expect(Thing.alive.withLock { $0 } == 1)
        let kept = holder?.reference.object
        holder?.reference.replace(by: Thing(2))
        #expect(Thing.alive.withLock { $0 } == 2)
        #expect(kept?.number == 1 && holder?.reference.borrow { $0.number } == 2)
        holder?.reference.replace(by: Thing(3))
        #expect(Thing.alive.withLock { $0 } == 2)
        let last = holder?.reference.borrow { $0 }
        holder = nil
        #expect(last?.number == 3)
        withExtendedLifetime((kept, last)) { #expect(Thing.alive.withLock { $0 } == 2) }
    }

    @Test("replacing by the object that is there already changes nothing")
    func sameObject() {
        let thing = Thing(4)
        let holder = Holder(thing)
        for _ in 0..<10 { holder.reference.replace(by: thing) }
        #expect(holder.reference.object === thing)
    }
}
