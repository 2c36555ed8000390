/* What Rust's standard library asks of an unwinder where panics abort: the frames of a backtrace. Nobody looks for
   them on a device without symbols, so there are none; the panic's message and place are printed all the same. */

int _Unwind_Backtrace(void *each_frame, void *argument)
{
	(void)each_frame;
	(void)argument;
	return 5; /* _URC_END_OF_STACK */
}

unsigned long _Unwind_GetIP(void *frame)
{
	(void)frame;
	return 0;
}

#ifdef __arm__
/* There a frame's place is one of its registers. */
int _Unwind_VRS_Get(void *frame, int class, unsigned long number, int representation, void *value)
{
	(void)frame;
	(void)class;
	(void)number;
	(void)representation;
	*(unsigned long *)value = 0;
	return 0; /* _UVRSR_OK */
}
#endif
