extension RandomScript {
    /// Options of the format: a list of one to three, most of them legal.
    mutating func imageOptions() -> [String] {
        if chance(50) { return [] }
        if chance(4) { return ["-o", one(of: ["foo=bar", "cluster_size=3", "refcount_bits=7", "compat=2", "cluster_size=", "lazy_refcounts=maybe", "cluster_size=512,extended_l2=on", "compat=0.10,lazy_refcounts=on"])] }
        var options = [
            one(of: ["cluster_size=512", "cluster_size=4k", "cluster_size=2M", "cluster_size=16k", "compat=0.10", "lazy_refcounts=on", "refcount_bits=8", "refcount_bits=64", "compat=1.1", "extended_l2=on,cluster_size=16k", "compression_type=zstd"])
        ]
        if chance(20) { options.append(one(of: ["refcount_bits=16", "refcount_bits=1", "lazy_refcounts=off", "compression_type=zlib", "preallocation=off", "preallocation=metadata", "preallocation=falloc", "preallocation=full"])) }
        return chance(20) ? options.flatMap { ["-o", $0] } : ["-o", options.joined(separator: ",")]
    }

    mutating func rawOptions() -> [String] { chance(8) ? ["-o", one(of: ["preallocation=off", "preallocation=falloc", "preallocation=full", "preallocation=metadata", "cluster_size=4k"])] : [] }

    private mutating func encryptionOptions() -> String {
        "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=1" + (chance(30) ? ",cluster_size=4k" : "") + (chance(20) ? ",encrypt.cipher-alg=aes-128" : "")
    }

    /// Whatever the name stood for until now.
    private mutating func forget(_ name: String) {
        backings[name] = nil
        encrypted.remove(name)
        copied.remove(name)
        divided.remove(name)
        finelyMapped.remove(name)
    }

    /// What the options of a new image mean for the commands that follow.
    private mutating func note(_ name: String, madeBy words: [String]) {
        let text = words.joined(separator: " ")
        if text.contains("extended_l2=on") { divided.insert(name) }
        if text.contains(#/extended_l2=on|cluster_size=(512|4k)/#) { finelyMapped.insert(name) }
    }

    mutating func create(_ name: String) {
        let format = isRawBacking(name) ? "raw" : one(of: ["qcow2", "qcow2", "qcow2", "raw"])
        var words = ["create", "-f", format] + maybe(10, "-q")
        let below = formats.keys.sorted().filter { !reaches(name, from: $0) && !encrypted.contains($0) }
        forget(name)
        if format == "qcow2", !below.isEmpty, chance(60) {
            let backing = one(of: below)
            backings[name] = backing
            if chance(10) {
                words += ["-o", "backing_file=\(backing),backing_fmt=\(self.format(of: backing))"]
            } else {
                words += ["-b", backing] + (chance(97) ? ["-F", self.format(of: backing)] : []) + imageOptions()
            }
            if chance(1), !words.contains("-o") {
                encrypted.insert(name)
                words += Self.secret + ["-o", encryptionOptions()]
            }
            words += maybe(5, "-u") + [name]
            if chance(30) { words.append(size()) }
        } else if format == "qcow2", chance(8) {
            // An empty image gives no data away, so that only what is written is encrypted.
            encrypted.insert(name)
            words += Self.secret + ["-o", encryptionOptions(), name, "2M"]
        } else {
            words += (format == "qcow2" ? imageOptions() : rawOptions()) + [name, one(of: ["1M", "3M", "5M", "4097", "2M"])]
        }
        formats[name] = format
        note(name, madeBy: words)
        add(words)
        if encrypted.contains(name), backings[name] == nil, let backing = below.first, chance(50) {
            backings[name] = backing
            add(["rebase", "-u"] + Self.secret + ["--image-opts", "-b", backing, "-F", self.format(of: backing), description(of: name)])
        }
        if chance(70) { io(name) }
    }

    mutating func resize(_ name: String) {
        let opened = opened(name)
        let preallocation = chance(12) && !encrypted.contains(name) ? ["--preallocation", one(of: ["off", "metadata", "falloc", "full", "foo"])] : []
        add(["resize"] + maybe(50, "--shrink") + maybe(20, "-q") + preallocation + opened.options + [opened.name, one(of: ["", "", "+", "-"]) + size()])
    }

    mutating func convert(_ name: String) {
        let target = newName()
        guard target != name else { return }
        if chance(8), formats[target] != nil, !encrypted.contains(target) { return convert(name, into: target) }
        let format = isRawBacking(target) ? "raw" : one(of: ["qcow2", "qcow2", "raw"])
        let opened = opened(name)
        var words = ["convert"] + opened.options + ["-O", format]
        words += format == "qcow2" ? imageOptions() : rawOptions()
        words += maybe(20, "-c") + maybe(10, "-p") + maybe(5, "-q") + maybe(5, "-C") + maybe(5, "--salvage") + maybe(5, "-U") + maybe(5, "-r", "100M")
        if chance(15) { words += ["-S", one(of: ["0", "4k", "64k", "1"])] }
        if chance(15) { words += ["-m", one(of: ["1", "8", "17"])] }
        words += maybe(10, "-W")
        if chance(10) { words += ["-l", one(of: ["s1", "1", "nosuch", "snapshot.name=s1", "snapshot.id=2"])] }
        if chance(10), format == "qcow2" { words += ["--bitmaps"] + maybe(30, "--skip-broken-bitmaps") }
        // Not a mode that there is none of: QEMU makes the target first and complains then, ours the other way round.
        if chance(10) { words += ["-t", one(of: ["none", "writethrough", "unsafe", "unsafe"])] }
        words += cacheOption("-T")
        let backing = chance(10) && format == "qcow2" ? plainImage() : nil
        if let backing, reaches(target, from: backing) { return }
        forget(target)
        // What is compressed into an encrypted image is a deliberate difference; preallocated ones hold something else where nothing was written.
        if chance(3), format == "qcow2", Set(words).isDisjoint(with: ["-o", "-c", "--object"]) {
            encrypted.insert(target)
            words += Self.secret + ["-o", encryptionOptions()]
        }
        if let backing {
            words += ["-B", backing, "-F", self.format(of: backing)]
            backings[target] = backing
        }
        words += [opened.name] + (chance(8) && !words.contains("--image-opts") ? [plainImage()] : []) + [target]
        add(words)
        formats[target] = format
        note(target, madeBy: words)
    }

    /// Into an image that is there already.
    private mutating func convert(_ name: String, into target: String) {
        let opened = opened(name)
        var words = ["convert", "-n"] + opened.options + maybe(20, "-p") + maybe(15, "-W")
        if chance(30) {
            words += ["--target-image-opts"] + [opened.name, "driver=\(formats[target] ?? "raw"),file.filename=\(target)"]
        } else {
            words += ["-O", formats[target] ?? "raw"] + maybe(10, "-c") + maybe(5, "-o", "cluster_size=4k") + [opened.name, target]
        }
        add(words)
    }

    mutating func rebase(_ name: String) {
        let backing = chance(25) ? "" : plainImage()
        guard !reaches(name, from: backing) else { return }
        let opened = opened(name)
        let isEncrypted = encrypted.contains(name)
        let unsafe = chance(isEncrypted ? 50 : 12) && !copied.contains(name)
        // An image that is described by options finds no file by a name that is relative to it: a deliberate difference.
        if isEncrypted, !backing.isEmpty, !unsafe { return }
        backings[name] = backing.isEmpty ? nil : backing
        add(["rebase"] + maybe(20, "-c") + maybe(10, "-p") + maybe(10, "-q") + maybe(5, "-U") + (unsafe ? ["-u"] : []) + cacheOption("-t") + cacheOption("-T") + opened.options
            + ["-b", backing] + maybe(90, "-F", format(of: backing)) + [opened.name])
    }

    mutating func commit(_ name: String) {
        let opened = opened(name)
        let base = chance(30) ? ["-b", chance(60) ? (backings[backings[name] ?? ""] ?? plainImage()) : plainImage()] : []
        add(["commit"] + maybe(30, "-d") + base + maybe(10, "-p") + maybe(10, "-r", "100M") + cacheOption("-t") + opened.options + maybe(20, "-q") + [opened.name])
    }

    mutating func amend(_ name: String) {
        let opened = opened(name)
        var all = ["refcount_bits=8", "refcount_bits=64", "refcount_bits=16"]
        // qemu-img takes a quarter of an hour for other refcounts of an image with clusters of 2 MiB.
        if commands.joined().contains(where: { $0.contains("cluster_size=2M") }) { all = [] }
        let options = one(of: all + ["compat=0.10", "compat=1.1", "lazy_refcounts=on", "lazy_refcounts=off", "cluster_size=4k", "foo=bar", "size=4M", "compression_type=zstd", "preallocation=full", "compat=1.1,lazy_refcounts=on"])
        add(["amend"] + maybe(10, "-p") + maybe(10, "-q") + maybe(5, "--force") + cacheOption("-t") + opened.options + ["-o", options, opened.name])
    }

    mutating func dd(_ name: String) {
        let target = newName()
        // Which of two mistakes is told: nothing below the source is written to.
        guard !reaches(target, from: name) else { return }
        let format = isRawBacking(target) ? "raw" : one(of: ["raw", "qcow2"])
        let opened = opened(name)
        var words = ["dd"] + opened.options + ["-O", format] + maybe(5, "-U")
        if chance(50) { words.append("bs=\(one(of: ["512", "1000", "4k", "1M", "0"]))") }
        if chance(40) { words.append("count=\(number(below: 300))") }
        if chance(40) { words.append("skip=\(number(below: 100))") }
        if chance(4) { words.append(one(of: ["foo=1", "count=x", "skip=-1", "bs", "conv=notrunc"])) }
        add(words + ["if=\(opened.name)", "of=\(target)"])
        forget(target)
        formats[target] = format
        copied.insert(target)
    }

    mutating func bitmap(_ name: String) {
        var words = ["bitmap"]
        for _ in 0..<1 + number(below: 2) { words += one(of: [["--add"], ["--add"], ["--remove"], ["--clear"], ["--enable"], ["--disable"], ["--merge", one(of: ["b1", "b2", "nosuch"])]]) }
        if chance(25) { words += ["-g", one(of: ["4k", "64k", "1M", "3", "256"])] }
        if chance(15) {
            let source = plainImage()
            // Whether an image can be read while it, or what lies below it, is open for writing is a matter of locks.
            if !reaches(name, from: source) { words += ["-b", source] + formatOption(source, "-F") }
        }
        let opened = opened(name)
        add(words + opened.options + [opened.name, one(of: ["b1", "b1", "b2", "b3"])])
    }

    mutating func snapshot(_ name: String) {
        let opened = opened(name)
        if chance(8) { return add(["snapshot"] + one(of: [["-c", "x", "-l"], ["-l", "-d", "s1"], ["-a"], ["-c", ""], ["-f", "foo", "-l"], ["-q", "-U", "-l"], ["-U", "-c", "x"]]) + [name]) }
        switch number(below: 5) {
        case 0, 1: add(["snapshot"] + opened.options + ["-c", newSnapshot(), opened.name])
        case 2: add(["snapshot"] + maybe(10, "-q") + opened.options + ["-a", one(of: ["s1", "s2", "1", "2", "nosuch"]), opened.name])
        case 3: add(["snapshot"] + opened.options + ["-d", one(of: ["s1", "s2", "1", "nosuch"]), opened.name])
        default: add(["snapshot"] + opened.options + maybe(50, "-l") + [opened.name])
        }
    }

    mutating func repair(_ name: String) {
        let opened = opened(name)
        add(["check", "-r", one(of: ["leaks", "all", "all", "foo"])] + maybe(30, "--output=json") + opened.options + [opened.name])
    }
}
