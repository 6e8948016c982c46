extension StorageService {
    /// Ends the daemon in order: the answer is sent first.
    package func quit() async throws { requestQuit() }
}
