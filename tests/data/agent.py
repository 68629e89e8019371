"""A seccomp agent at the socket argv[1]: prints each container it hears of, and answers every call it is asked about
with EXDEV."""
import errno, fcntl, socket, struct, sys, threading

RECEIVE, SEND = 0xC0502100, 0xC0182101


def decide(listener):
    while True:
        notification = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, notification)
        except OSError:
            return
        call = struct.unpack_from("Q", notification)[0]
        try:
            fcntl.ioctl(listener, SEND, struct.pack("QqiI", call, 0, -errno.EXDEV, 0))
        except FileNotFoundError:
            pass


server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    state, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
    print(state.decode(), flush=True)
    threading.Thread(target=decide, args=(descriptors[0],), daemon=True).start()
