import multiprocessing as mp, time
def party(b, n):
    for i in range(n): b.wait()
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 3000
    b = mp.Barrier(4)
    all = [mp.Process(target=party, args=(b, n + 1)) for i in range(3)]
    for p in all: p.start()
    b.wait()
    start = time.perf_counter()
    party(b, n)
    print((time.perf_counter() - start) / n * 1e6)
    for p in all: p.join()
