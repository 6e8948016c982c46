import IOCore
package import StorageSchema
package import StrataBase

/// A change of key slots with the passwords looked up.
package struct KeySlotChange: Sendable {
    package enum Wish: Sendable {
        /// `password` opens a slot: that of the number, or a free one.
        case activate(password: [UInt8], slot: Int?, iterationTime: Int?)
        /// Nothing opens the slot any more: that of the number, or all that `password` opens, or that of the number if `password` opens it.
        case erase(password: [UInt8]?, slot: Int?)
    }

    package let wish: Wish
    /// Opens the disk; nil for the password that it was opened with.
    package let unlock: [UInt8]?
    /// Slots may be overwritten, and the last one erased.
    package let isForced: Bool

    /// - Parameter secret: looks a secret up.
    package init(_ options: QCryptoBlockAmendOptionsLUKS, isForced: Bool, secret: (String) throws(BlockError) -> [UInt8]) throws(BlockError) {
        func refuse(_ isGiven: Bool, _ name: String, _ doing: String) throws(BlockError) {
            if isGiven { throw BlockError(.invalidArgument, "'\(name)' must not be given when \(doing) keyslots") }
        }
        func password(_ id: String?) throws(BlockError) -> [UInt8]? {
            guard let id else { return nil }
            return try secret(id)
        }
        if let slot = options.keyslot, !(0..<LUKSHeader.slotCount).contains(slot) {
            throw BlockError(.invalidArgument, "Invalid keyslot \(slot) specified, must be between 0 and \(LUKSHeader.slotCount - 1)")
        }
        switch options.state {
        case .active:
            guard let new = try password(options.newSecret) else { throw BlockError(.invalidArgument, "'new-secret' is required to activate a keyslot") }
            try refuse(options.oldSecret != nil, "old-secret", "activating")
            wish = .activate(password: new, slot: options.keyslot, iterationTime: try LUKSLayout.iterationTime(options.iterTime))
        case .inactive:
            try refuse(options.newSecret != nil, "new-secret", "erasing")
            try refuse(options.iterTime != nil, "iter-time", "erasing")
            wish = .erase(password: try password(options.oldSecret), slot: options.keyslot)
        }
        unlock = try password(options.secret)
        self.isForced = isForced
    }
}

// Key slots of a disk that may be in use. Source of the rules: LUKS On-Disk Format Specification 1.2.3, sections 3.4 to 3.6.
//
// A slot counts from the moment when one word of the header says so, and that word is written last, by itself: header and slots cross sectors, a word does
// not. Whatever fails or breaks off, all other slots stay as they are, and what has been written is put back.

extension LUKSLayout {
    /// - Parameter password: the one that the disk was opened with.
    package mutating func change(_ change: KeySlotChange, openedWith password: [UInt8], in area: some KeyArea) async throws(BlockError) {
        switch change.wish {
        case .activate(let new, let wanted, let time):
            let slot = try slotToFill(wanted, isForced: change.isForced)
            let key: [UInt8]
            do throws(BlockError) { key = try await masterKey(password: change.unlock ?? password, in: area) } catch {
                throw error.during("Failed to retrieve the master key")
            }
            let made = try await makeSlot(slot, password: new, masterKey: key, iterationTime: time ?? 2000)
            try await replace(slot, with: made.slot, made.material, in: area)
        case .erase(let old, let wanted):
            for slot in try await slotsToErase(old, wanted, isForced: change.isForced, in: area) { try await erase(slot, in: area) }
        }
    }

    private func slotToFill(_ wanted: Int?, isForced: Bool) throws(BlockError) -> Int {
        if let wanted {
            if header.slots[wanted].isActive, !isForced {
                throw BlockError(.invalidArgument, "Refusing to overwrite active keyslot \(wanted) - please erase it first")
            }
            return wanted
        }
        guard let free = header.slots.firstIndex(where: { !$0.isActive }) else {
            throw BlockError(.invalidArgument, "Can't add a keyslot - all keyslots are in use")
        }
        return free
    }

    private func slotsToErase(_ password: [UInt8]?, _ wanted: Int?, isForced: Bool, in area: some KeyArea) async throws(BlockError) -> [Int] {
        let active = header.slots.indices.filter { header.slots[$0].isActive }
        if let wanted {
            if let password, try await masterKey(password: password, slot: wanted, in: area) == nil {
                throw BlockError(.invalidArgument, "Given keyslot \(wanted) doesn't contain the given old password for erase operation")
            }
            guard header.slots[wanted].isActive else { throw BlockError(.invalidArgument, "Given keyslot \(wanted) is already erased (inactive) ") }
            if active == [wanted], !isForced {
                throw BlockError(
                    .invalidArgument,
                    "Attempt to erase the only active keyslot \(wanted) which will erase all the data in the image irreversibly - refusing operation")
            }
            return [wanted]
        }
        guard let password else {
            throw BlockError(
                .invalidArgument, "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given")
        }
        var found: [Int] = []
        for slot in active where try await masterKey(password: password, slot: slot, in: area) != nil { found.append(slot) }
        if found.isEmpty { throw BlockError(.invalidArgument, "No keyslots match given (old) password for erase operation") }
        if found == active, !isForced {
            throw BlockError(
                .invalidArgument,
                "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation"
            )
        }
        return found
    }

    /// Puts a key into a slot. A slot that was active is not while this goes on.
    private mutating func replace(_ index: Int, with slot: LUKSHeader.KeySlot, _ material: [UInt8], in area: some KeyArea) async throws(BlockError) {
        let old = header.slots[index]
        let oldMaterial = try await area.read(at: materialOffset(index), byteCount: materialSize)
        var waiting = slot
        waiting.isActive = false
        var isTouched = false
        do throws(BlockError) {
            if old.isActive { try await mark(index, isActive: false, in: area) }
            isTouched = true
            try await area.write(material, at: materialOffset(index))
            try await area.write(waiting.encoded(), at: LUKSHeader.slotOffset(index))
            try await area.flush()
            try await mark(index, isActive: true, in: area)
        } catch {
            await restore(index, old, isTouched ? oldMaterial : nil, in: area)
            throw error.during("Failed to write to keyslot \(index)")
        }
        header.slots[index] = slot
    }

    private mutating func erase(_ index: Int, in area: some KeyArea) async throws(BlockError) {
        let old = header.slots[index]
        let oldMaterial = try await area.read(at: materialOffset(index), byteCount: materialSize)
        let noise = try CipherLibrary.randomBytes(materialSize)
        var isTouched = false
        do throws(BlockError) {
            try await mark(index, isActive: false, in: area)
            isTouched = true
            try await area.write(noise, at: materialOffset(index))
            try await area.flush()
        } catch {
            await restore(index, old, isTouched ? oldMaterial : nil, in: area)
            throw error.during("Failed to erase keyslot \(index)")
        }
        header.slots[index].isActive = false
    }

    private func mark(_ index: Int, isActive: Bool, in area: some KeyArea) async throws(BlockError) {
        let word = isActive ? LUKSHeader.KeySlot.active : LUKSHeader.KeySlot.inactive
        try await area.write(word.bigEndianBytes, at: LUKSHeader.slotOffset(index))
        try await area.flush()
    }

    /// Puts back what a slot was, as far as the disk lets us; the word that makes it count comes last.
    /// - Parameter material: nil when only that word can have changed.
    private func restore(_ index: Int, _ slot: LUKSHeader.KeySlot, _ material: [UInt8]?, in area: some KeyArea) async {
        do throws(BlockError) {
            if let material {
                var waiting = slot
                waiting.isActive = false
                try await mark(index, isActive: false, in: area)
                try await area.write(material, at: materialOffset(index))
                try await area.write(waiting.encoded(), at: LUKSHeader.slotOffset(index))
                try await area.flush()
            }
            try await mark(index, isActive: slot.isActive, in: area)
        } catch {
            // The failure that led here is the one to report.
        }
    }
}
