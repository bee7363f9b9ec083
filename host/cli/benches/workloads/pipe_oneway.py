import multiprocessing as mp, sys, time
def send_all(conn, kind, n):
    item = 7 if kind == "int" else b"x" * 1048576
    for i in range(n): conn.send(item)
if __name__ == "__main__":
    mp.set_start_method("fork")
    kind, n = sys.argv[1], int(sys.argv[2]) // 2
    conn, other = mp.Pipe(False)
    p = mp.Process(target=send_all, args=(other, kind, n)); p.start()
    conn.recv()
    start = time.perf_counter()
    for i in range(1, n): conn.recv()
    print((time.perf_counter() - start) / (n - 1) * 1e6)
    p.join()
