import multiprocessing as mp, time
def take_turns(c, turn, me, n):
    for i in range(n):
        with c:
            while turn.value != me: c.wait()
            turn.value = 1 - me
            c.notify()
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 5000
    c, turn = mp.Condition(), mp.RawValue("i", 0)
    p = mp.Process(target=take_turns, args=(c, turn, 1, n + 1)); p.start()
    take_turns(c, turn, 0, 1)
    start = time.perf_counter()
    take_turns(c, turn, 0, n)
    print((time.perf_counter() - start) / n * 1e6)
    p.join()
