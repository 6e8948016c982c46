extension RandomScript {
    mutating func check(_ name: String) {
        let opened = opened(name)
        add(["check"] + maybe(30, "--output=json") + opened.options + maybe(20, "-q") + maybe(10, "-U") + cacheOption("-T") + [opened.name])
    }

    mutating func map(_ name: String) {
        let opened = opened(name)
        add(["map"] + (chance(50) ? ["--output", chance(95) ? "json" : "xml"] : []) + (chance(20) ? ["--start-offset", size(), "--max-length", size()] : []) + maybe(8, "-s", size()) + maybe(8, "-l", size()) + maybe(10, "-U")
            + opened.options + [opened.name])
    }

    mutating func compare(_ name: String) {
        let other = image()
        let strict = finelyMapped.isDisjoint(with: chain(of: name) + chain(of: other)) ? maybe(30, "-s") : []
        if encrypted.contains(name) || encrypted.contains(other) {
            return add(["compare"] + Self.secret + ["--image-opts"] + strict + [description(of: name), description(of: other)])
        }
        add(["compare"] + formatOption(name) + formatOption(other, "-F") + strict + maybe(10, "-q") + maybe(10, "-p") + maybe(10, "-U") + cacheOption("-T") + [name, other])
    }

    mutating func info(_ name: String) {
        // Without a password it tells the same.
        let opened = encrypted.contains(name) ? (options: [], name: name) : opened(name)
        add(["info"] + maybe(40, "--output=json") + maybe(40, one(of: ["--backing-chain", "-b"])) + maybe(20, "-U") + opened.options + [opened.name])
    }

    mutating func measure(_ name: String) {
        var words = ["measure"] + (chance(70) ? ["-O", one(of: ["qcow2", "qcow2", "raw", "foo"])] : []) + maybe(30, "--output=json") + maybe(10, "-U")
        if chance(30) { words += imageOptions() }
        if chance(10) { words += ["-l", one(of: ["s1", "1", "nosuch"])] }
        if chance(20) { return add(words + ["--size", size()]) }
        let opened = opened(name)
        add(words + opened.options + [opened.name])
    }

    /// A few requests; that the image is the same afterwards is what counts.
    mutating func bench(_ name: String) {
        // QEMU's takes no objects.
        if encrypted.contains(name) { return }
        let opened = opened(name)
        let isWriting = chance(40)
        let writes = isWriting ? ["-w"] + maybe(60, "--pattern", one(of: ["0", "7", "255", "256"])) + maybe(30, "--flush-interval", one(of: ["1", "4", "100"])) + maybe(10, "--no-drain") : maybe(5, "--flush-interval", "2")
        add(["bench"] + opened.options + ["-c", one(of: ["1", "7", "20", "0"])] + maybe(60, "-d", one(of: ["1", "4", "16", "0"])) + maybe(50, "-s", one(of: ["512", "4k", "100", "64k", "0"]))
            + maybe(30, "-S", one(of: ["512", "8k", "0"])) + maybe(30, "-o", one(of: ["0", "4k", "1M", "64M"])) + writes + maybe(10, "-q") + (isWriting ? [] : maybe(10, "-U")) + maybe(10, "-i", one(of: ["threads", "io_uring", "foo"])) + [opened.name])
    }

    /// Command lines that no tool can do anything with.
    mutating func wrong(_ name: String) {
        let command = one(of: ["create", "info", "check", "map", "compare", "convert", "rebase", "commit", "resize", "snapshot", "dd", "amend", "bench", "bitmap", "measure"])
        switch number(below: 9) {
        case 0: add(command, "-Z", name)
        case 1: add(command)
        case 2: add(command, "--nosuch=1", name)
        case 3: add(command, "-f", "foo", name, name)
        // QEMU's bench takes no objects.
        case 4 where command != "bench": add(command, "--object", one(of: ["secret", "foo,id=a", "secret,id=s", "secret,id=s,data=x,foo=1"]), name)
        case 5: add(command, "--image-opts", one(of: ["driver=foo", "driver=qcow2", "file.filename=nosuch", "driver=qcow2,file.driver=file,file.filename=\(name)", "\(name)"]))
        // Not -T: where it is no cache mode, it is our --trace.
        case 6: add(command, one(of: ["-t", "-f", "-o", "-U", "-p", "-q"]), name)
        case 7: add(one(of: ["foo", "creat", "", "convertt"]), name)
        default: add(command, name, "x", "y", "z")
        }
    }
}
