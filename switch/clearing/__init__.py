"""The day's end 清分清算: fees, netting, and the files that banks, merchants and other cities settle by."""
