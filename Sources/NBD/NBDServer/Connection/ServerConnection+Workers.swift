import BlockGraph
import IOCore
import NBDProtocol
import StrataBase

// Requests that could not be answered within their turn. Workers are tasks that live as long as the connection: making a task for each request
// costs more than the rest of a request's way through the server.

extension ServerConnection {
    /// Hands a request to a worker.
    func submit(_ request: QueuedRequest) {
        requestsInFlight += 1
        bytesInFlight += request.heldByteCount
        queue.append(request)
        Trace.nbdRequestQueued(client: self, cookie: request.frame.cookie, unfinished: requestsInFlight)
        if parking.unparkOne() || workerCount == ConnectionLimits.requestsInFlight { return }
        workerCount += 1
        context.spawn { await self.work() }
    }

    private func work() async {
        while phase != .closed {
            guard queueStart < queue.count else {
                await parking.park(unless: { queueStart < queue.count || phase == .closed })
                continue
            }
            let request = takeRequest()
            await perform(request)
            finishedRequest(heldByteCount: request.heldByteCount)
        }
        workerCount -= 1
        endIfOver()
    }

    private func takeRequest() -> QueuedRequest {
        let request = queue[queueStart]
        queueStart += 1
        if queueStart == queue.count {
            queue.removeAll(keepingCapacity: true)
            queueStart = 0
        } else if queueStart >= ConnectionLimits.requestsInFlight {
            queue.removeFirst(queueStart)
            queueStart = 0
        }
        return request
    }

    /// A request is over and its answer, if any, is in the send queue.
    func finishedRequest(heldByteCount: Int) {
        requestsInFlight -= 1
        bytesInFlight -= heldByteCount
        if phase == .closed { endIfOver() } else { postTurn() }
    }

    private func perform(_ request: QueuedRequest) async {
        do throws(BlockError) {
            switch request.frame.command {
            case .read: try await readSlowly(request)
            case .write: try await writeSlowly(request)
            case .flush: try await flush(request.frame)
            case .trim: try await trim(request.frame)
            case .writeZeroes: try await writeZeroes(request.frame)
            case .cache: try await cache(request.frame)
            case .blockStatus: try await blockStatusSlowly(request.frame, request.metaContexts)
            default: replyError(to: request.reference, .invalid, "\(request.frame.command) is not supported")
            }
        } catch {
            replyError(to: request.reference, NBDErrorCode(error), error.description)
        }
    }
}
