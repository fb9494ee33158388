#include <stdio.h>
int main(void)
{
    puts("llmsched");
    return 0;
}
