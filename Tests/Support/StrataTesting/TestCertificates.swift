/// Certificates and keys for tests of TLS, made anew by openssl.
package enum TestCertificates {
    /// A folder with the files of a certificate authority, a server for localhost and two clients.
    package static func make(in folder: TemporaryFolder) throws {
        let script = """
            set -e
            request() { openssl req -newkey rsa:2048 -nodes -keyout $1.key -subj "$2" -out $1.csr 2>/dev/null; }
            openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj '/CN=test authority' -days 30 -out ca-cert.pem \
                -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
            for one in "server /CN=localhost" "alice /O=Strata/CN=alice" "mallory /O=Elsewhere/CN=mallory"; do
                set -- $one
                request $1 $2
                printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=critical,CA:FALSE\\nkeyUsage=critical,digitalSignature,keyEncipherment\\nextendedKeyUsage=serverAuth,clientAuth\\n' > ext
                openssl x509 -req -in $1.csr -CA ca-cert.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out $1.pem 2>/dev/null
            done
            for client in alice mallory; do
                mkdir $client
                cp ca-cert.pem $client/
                cp $client.pem $client/client-cert.pem
                cp $client.key $client/client-key.pem
            done
            mkdir nobody
            cp ca-cert.pem nobody/
            cp server.pem server-cert.pem
            cp server.key server-key.pem
            printf 'qemu:%s\\n' 00112233445566778899aabbccddeeff > keys.psk
            mkdir wrong
            printf 'qemu:%s\\n' ff112233445566778899aabbccddeeff > wrong/keys.psk
            """
        try mustRun("bash", ["-c", script], in: folder.url)
    }
}
