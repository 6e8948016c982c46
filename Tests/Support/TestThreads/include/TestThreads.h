// Nothing to call: a program that this is linked into has the threads (see TestThreads.c).
