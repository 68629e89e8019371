/* usage: steps FILE PROGRAM ARGUMENT...
 * Runs PROGRAM, and its children for as long as they are copies of it, one instruction at a time, and appends every
 * address that was executed to FILE, in hexadecimal. PROGRAM is linked statically at a fixed address. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BASE = 0x200000, SIZE = 0x1000000 };

static unsigned char executed[SIZE];

static int is_copy(pid_t process, const struct stat *program) {
    char path[32];
    struct stat other;
    snprintf(path, sizeof path, "/proc/%d/exe", process);
    return stat(path, &other) == 0 && other.st_size == program->st_size;
}

static void step(pid_t process, int signal) {
    ptrace(PTRACE_SINGLESTEP, process, 0, signal);
}

static void note(pid_t process) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, process, 0, &registers) == 0 && registers.rip - BASE < SIZE) {
        executed[registers.rip - BASE] = 1;
    }
}

int main(int count, char **words) {
    struct stat program;
    if (count < 3 || stat(words[2], &program) != 0) {
        fprintf(stderr, "usage: steps FILE PROGRAM ARGUMENT...\n");
        return 2;
    }
    pid_t first = fork();
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(words[2], words + 2);
        _exit(127);
    }
    int status;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0,
           PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC);
    step(first, 0);
    for (pid_t process; (process = waitpid(-1, &status, __WALL)) > 0;) {
        if (!WIFSTOPPED(status)) {
            if (process == first) {
                break;
            }
            continue;
        }
        if (status >> 16 == PTRACE_EVENT_EXEC && !is_copy(process, &program)) {
            ptrace(PTRACE_DETACH, process, 0, 0);
            continue;
        }
        int signal = WSTOPSIG(status);
        if (signal == SIGTRAP || signal == SIGSTOP) {
            note(process);
            signal = 0;
        }
        step(process, signal);
    }
    FILE *file = fopen(words[1], "a");
    if (!file) {
        perror(words[1]);
        return 1;
    }
    for (size_t place = 0; place < SIZE; place++) {
        if (executed[place]) {
            fprintf(file, "%zx\n", BASE + place);
        }
    }
    return fclose(file) == 0 ? 0 : 1;
}
