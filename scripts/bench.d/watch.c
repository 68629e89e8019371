/* usage: watch RESULT NOT PROGRAM [ARGUMENT...]
 * Runs the program and writes two numbers into RESULT: the largest peak resident memory, in KiB, of any process
 * that it starts or becomes, as the kernel counts it (VmHWM), and how many system calls they all make (what
 * strace -f -c counts, which leaves out exit; but strace would wait for the container that `create` leaves behind).
 * Memory is looked at when a process ends and just before it executes another program. wait4's ru_maxrss would
 * not do: it begins with the memory of whoever started the program. Processes that have become NOT, the
 * container's own program, do not count for memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4096 };
static pid_t alive[MOST];
static int count;
static long peak, calls;
static struct stat not;

static void fail(const char *what) {
    fprintf(stderr, "watch: %s: %s\n", what, strerror(errno));
    exit(125);
}

static void look_at(pid_t pid) {
    char path[64], line[256];
    struct stat program;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    if (stat(path, &program) == 0 && program.st_dev == not.st_dev && program.st_ino == not.st_ino)
        return;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *status = fopen(path, "re");
    long kilobytes;
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld kB", &kilobytes) == 1 && kilobytes > peak)
            peak = kilobytes;
    if (status)
        fclose(status);
}

static void remember(pid_t pid) {
    for (int i = 0; i < count; i++)
        if (alive[i] == pid)
            return;
    if (count < MOST)
        alive[count++] = pid;
}

static void forget(pid_t pid) {
    for (int i = 0; i < count; i++)
        if (alive[i] == pid)
            alive[i] = alive[--count];
}

static void at_system_call(pid_t pid) {
    struct __ptrace_syscall_info call;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, &call) <= 0 || call.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    if (call.entry.nr != SYS_exit && call.entry.nr != SYS_exit_group)
        calls++;
    if (call.entry.nr == SYS_execve || call.entry.nr == SYS_execveat)
        look_at(pid);
}

/* Deals with one stop of one process; the result is the signal it goes on with. */
static int stopped(pid_t pid, int status, pid_t first, int *executed) {
    int event = status >> 16, signal = WSTOPSIG(status);
    remember(pid);
    if (event == PTRACE_EVENT_EXEC && pid == first && !*executed) {
        *executed = 1;
        calls = 1;
    } else if (*executed && event == PTRACE_EVENT_EXIT) {
        look_at(pid);
    } else if (*executed && signal == (SIGTRAP | 0x80)) {
        at_system_call(pid);
    }
    return event != 0 || signal == (SIGTRAP | 0x80) ? 0 : signal;
}

int main(int arguments, char **argument) {
    if (arguments < 4 || stat(argument[2], &not) != 0)
        fail("needs RESULT NOT PROGRAM");
    int gate[2];
    if (pipe(gate) != 0)
        fail("pipe");
    pid_t first = fork();
    if (first == 0) {
        char byte;
        close(gate[1]);
        if (read(gate[0], &byte, 1) == 1) {
            close(gate[0]);
            execv(argument[3], argument + 3);
        }
        _exit(125);
    }
    long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC |
                   PTRACE_O_TRACEEXIT | PTRACE_O_TRACESYSGOOD;
    if (ptrace(PTRACE_SEIZE, first, 0, options) != 0 || ptrace(PTRACE_INTERRUPT, first, 0, 0) != 0)
        fail("ptrace");
    if (write(gate[1], "", 1) != 1)
        fail("write");
    close(gate[1]);
    close(gate[0]);
    int status, executed = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, __WALL)) > 0) {
        if (WIFSTOPPED(status)) {
            int signal = stopped(pid, status, first, &executed);
            ptrace(PTRACE_SYSCALL, pid, 0, signal);
            continue;
        }
        forget(pid);
        if (pid == first)
            break;
    }
    /* What the program left behind lives on without us. */
    for (int i = 0; i < count; i++)
        look_at(alive[i]);
    FILE *result = fopen(argument[1], "we");
    if (!result || fprintf(result, "%ld %ld\n", peak, calls) < 0 || fclose(result) != 0)
        fail(argument[1]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
