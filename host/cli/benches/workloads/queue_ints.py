import multiprocessing as mp, time
def put_all(q, n):
    for i in range(n): q.put(i)
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 100000
    q = mp.Queue()
    p = mp.Process(target=put_all, args=(q, n)); p.start()
    q.get()
    start = time.perf_counter()
    for i in range(1, n): q.get()
    print((time.perf_counter() - start) / n * 1e6)
    p.join()
