import multiprocessing as mp, time
def answer(a, b, n):
    for i in range(n):
        a.wait(); a.clear(); b.set()
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 5000
    a, b = mp.Event(), mp.Event()
    p = mp.Process(target=answer, args=(a, b, n + 1)); p.start()
    a.set(); b.wait(); b.clear()
    start = time.perf_counter()
    for i in range(n):
        a.set(); b.wait(); b.clear()
    print((time.perf_counter() - start) / n / 2 * 1e6)
    p.join()
