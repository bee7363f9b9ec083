import multiprocessing as mp, sys, time
def work(lock, gate, done):
    acquire, release = lock.acquire, lock.release
    gate.wait()
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < 0.5:
        for i in range(50):
            acquire(); release()
        count += 50
    done.put([start, time.perf_counter(), count])
if __name__ == "__main__":
    mp.set_start_method("fork")
    parties = int(sys.argv[1])
    lock, gate, done = mp.Lock(), mp.Barrier(parties), mp.Queue()
    for i in range(parties): mp.Process(target=work, args=(lock, gate, done)).start()
    times = [done.get() for i in range(parties)]
    print((max(t[1] for t in times) - min(t[0] for t in times)) / sum(t[2] for t in times) * 1e6)
