import multiprocessing as mp, time
if __name__ == "__main__":
    n = 300000
    lock = mp.Lock()
    start = time.perf_counter()
    for i in range(n):
        lock.acquire(); lock.release()
    print((time.perf_counter() - start) / n * 1e6)
