import multiprocessing as mp, sys, time
def send_all(conn, kind, n):
    item = 7 if kind == "int" else b"x" * (int(kind) * 1024)
    for i in range(n): conn.send(item)
if __name__ == "__main__":
    mp.set_start_method("fork")
    kind, n = sys.argv[1], int(sys.argv[2]) // 2
    conn, other = mp.Pipe(False)
    p = mp.Process(target=send_all, args=(other, kind, n)); p.start()
    conn.recv()
    start = time.perf_counter()
    for i in range(1, n): conn.recv()
    units = n - 1 if kind == "int" else (n - 1) * int(kind) / 1024
    print((time.perf_counter() - start) / units * 1e6)
    p.join()
