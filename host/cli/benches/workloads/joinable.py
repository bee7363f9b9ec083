import multiprocessing as mp, time
def work(q):
    while True:
        q.get(); q.task_done()
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 30000
    q = mp.JoinableQueue()
    mp.Process(target=work, args=(q,), daemon=True).start()
    q.put(0); q.join()
    start = time.perf_counter()
    for i in range(n): q.put(i)
    q.join()
    print((time.perf_counter() - start) / n * 1e6)
