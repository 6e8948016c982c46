/// The Swift jobs that are ready to run on a context: a growing ring, first in, first out. Used by one thread.
@safe struct JobQueue: ~Copyable {
    private var slots: UnsafeMutablePointer<UnownedJob>
    private var capacity = 1024
    private var head = 0
    private var tail = 0

    init() { unsafe slots = .allocate(capacity: capacity) }
    deinit { unsafe slots.deallocate() }

    var isEmpty: Bool { head == tail }

    mutating func push(_ job: UnownedJob) {
        if tail &- head == capacity { grow() }
        // SAFETY: the index is below `capacity`, and the ring is not full.
        unsafe (slots + (tail & (capacity &- 1))).initialize(to: job)
        tail &+= 1
    }

    mutating func pop() -> UnownedJob? {
        if head == tail { return nil }
        // SAFETY: slots between head and tail are initialized.
        let job = unsafe slots[head & (capacity &- 1)]
        head &+= 1
        return job
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<UnownedJob>.allocate(capacity: capacity * 2)
        let count = tail - head
        for index in 0..<count { unsafe (larger + index).initialize(to: slots[(head + index) & (capacity - 1)]) }
        unsafe slots.deallocate()
        unsafe slots = unsafe larger
        capacity *= 2
        head = 0
        tail = count
    }
}
