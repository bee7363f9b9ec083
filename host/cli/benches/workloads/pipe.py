import multiprocessing as mp, time
def echo(conn, n):
    for i in range(n): conn.send(conn.recv())
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 20000
    conn, other = mp.Pipe()
    p = mp.Process(target=echo, args=(other, n + 1)); p.start()
    conn.send(0); conn.recv()
    start = time.perf_counter()
    for i in range(n):
        conn.send(i); conn.recv()
    print((time.perf_counter() - start) / n * 1e6)
    p.join()
