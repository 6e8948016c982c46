/// Tells tasks apart, for code that has to recognize the task that it has met before.
package enum TaskIdentity {
    /// A number that no other task has while this one lives; nil outside of tasks.
    package static var current: Int? {
        // SAFETY: the task is only hashed, inside the call.
        unsafe withUnsafeCurrentTask { task in unsafe task?.hashValue }
    }
}
