/// What one connection may use up, and where its paths part. In bytes unless the name says otherwise.
enum ConnectionLimits {
    /// Taken from the socket at a time.
    static let receiveByteCount = 64 << 10
    /// Room for one piece of that size behind the longest piece that must lie in one run, whichever phase the connection is in.
    static let receiveBufferByteCount = 128 << 10
    /// A write whose payload is at most this long is carried out from where it was received; longer ones get a buffer of their own.
    static let inPlacePayload = receiveByteCount - 4096
    /// A payload that is still coming is written in pieces of at least this much, which end at multiples of it on the disk.
    static let writePiece = 64 << 10
    /// The send queue starts with this much room.
    static let sendBufferByteCount = 128 << 10
    /// Replies are sent as soon as this much has gathered, and at the end of a turn.
    static let sendBatch = 64 << 10
    /// On an encrypted connection, as soon as this much has: the client deciphers one record while the next is made.
    static let encryptedSendBatch = 12 << 10
    /// With more than this unsent no further request is looked at.
    static let unsent = 512 << 10
    /// Reads from here on are large: the kernel's send buffer grows, and files are sent without copies.
    static let largeRead = 64 << 10
    /// Pieces of a large read that are looked for in files one by one when the whole does not lie in one.
    static let filePiece = 64 << 10
    /// A large read that has to be copied is answered in chunks of this size where the protocol allows, so that they stay in the processor's cache.
    static let readChunk = 256 << 10
    /// Zeroes inside a large read are told of from this length on; shorter ones are sent.
    static let leastHole = 4096
    /// What the kernel is asked to take of large replies at a time.
    static let kernelSendBuffer = 2 << 20
    /// An asynchronous read up to this long is copied into the send queue, longer ones are sent from their own buffer.
    static let copiedReply = 16 << 10
    /// Requests that did not finish at once, in number.
    static let requestsInFlight = 128
    /// Buffers of requests that did not finish at once. One request is always admitted.
    static let bytesInFlight = 64 << 20
    /// One turn takes this much from one connection before others are looked at.
    static let turnByteCount = 1 << 20
    /// How long the loop looks for the next request before it sleeps, when it was worth it lately. In nanoseconds.
    static let spinNanoseconds: Int64 = 50_000
}
