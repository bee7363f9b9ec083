import multiprocessing as mp, time
def echo(a, b, n):
    for i in range(n): b.put(a.get())
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 10000
    a, b = mp.Queue(), mp.Queue()
    p = mp.Process(target=echo, args=(a, b, n + 1)); p.start()
    a.put(0); b.get()
    start = time.perf_counter()
    for i in range(n):
        a.put(i); b.get()
    print((time.perf_counter() - start) / n * 1e6)
    p.join()
